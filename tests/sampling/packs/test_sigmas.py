"""Samplers and schedules of other packs: sigmas that rise (unsampling), start again (restarts), repeat, or are told otherwise to the model.

Every evaluation belongs to the step that the sampler says it is for: in the record, its CSV, the chart, the events and the status.
"""

import csv
import io

import comfy.sample
import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_custom_sampler import FlipSigmas
from support import models, others
from support.host import engine, probe
from support.models import conditioning
from support.packs import ours


@pytest.fixture(scope="module")
def model():
    return models.build("sd15", **models.ONE_LEVEL)


def euler(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """As written in the textbook, upwards too. A restart is a rise on the schedule, which is jumped with new noise."""
    extra_args = extra_args or {}
    for i in range(len(sigmas) - 1):
        if restarts(sigmas) and sigmas[i + 1] > sigmas[i]:
            x = x + torch.randn_like(x) * (sigmas[i + 1] ** 2 - sigmas[i] ** 2) ** 0.5
            continue
        denoised = model(x, sigmas[i] * x.new_ones([x.shape[0]]), **extra_args)
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
        x = x + (x - denoised) / sigmas[i].clamp_min(1e-4) * (sigmas[i + 1] - sigmas[i])
    return x


def restarts(sigmas):
    return sigmas[0] > sigmas[-1]


def detail_daemon(amount, name="euler"):
    """A sampler around another one that tells the model a lower sigma than that of the step, most in the middle of the run."""
    inner = comfy.samplers.sampler_object(name)

    def sample(model, x, sigmas, **kwargs):
        def told_less(x, sigma, **extra):
            place = int((sigmas - sigma[0]).abs().argmin()) / (len(sigmas) - 1)
            return model(x, sigma * (1 - amount * max(0.0, 1 - abs(2 * place - 1))), **extra)

        for name in ("inner_model", "sigmas"):
            if hasattr(model, name):
                setattr(told_less, name, getattr(model, name))
        return inner.sampler_function(told_less, x, sigmas, **kwargs)

    return comfy.samplers.KSAMPLER(sample)


def churn(amount):
    return comfy.samplers.ksampler("euler", {"s_churn": amount})


def flipped(sigmas):
    return others.execute(FlipSigmas, torch.tensor(sigmas)).tolist()


FALLING = [14.6, 9.0, 5.0, 2.5, 1.0, 0.3, 0.0]
RESTART = [14.6, 7.0, 3.0, 7.0, 3.0, 1.0, 0.0]
# name: (sampler, sigmas, the step of each evaluation)
CASES = {
    "falling": ("euler", FALLING, [0, 1, 2, 3, 4, 5]),
    "flipped": ("euler", flipped(FALLING), [0, 1, 2, 3, 4, 5]),
    "flipped, textbook": (euler, flipped(FALLING), [0, 1, 2, 3, 4, 5]),
    "there and back": ("euler", [0.1, 2.0, 7.0, 2.0, 0.5, 0.0], [0, 1, 2, 3, 4]),
    "restart": (euler, RESTART, [0, 1, 3, 4, 5]),
    "restarts to where it was": (euler, [14.6, 3.0, 1.0, 3.0, 1.0, 3.0, 1.0, 0.0], [0, 1, 3, 5, 6]),
    "rising, with ComfyUI's sampler": ("euler", RESTART, [0, 1, 2, 3, 4, 5]),
    "repeated first": ("euler", [14.6, 14.6, 7.0, 7.0, 3.0, 0.0], [0, 1, 2, 3, 4]),
    "repeated first, heun": ("heun", [14.6, 14.6, 7.0, 3.0, 0.0], [0, 1, 1, 2, 2, 3, 3]),
    "all but the same": ("euler", [7.0, 6.9995, 6.999, 6.9985, 0.0], [0, 1, 2, 3]),
    "churn": (churn(4.0), FALLING, [0, 1, 2, 3, 4, 5]),
    "churn, first repeated": (churn(4.0), [14.6, 14.6, 7.0, 3.0, 0.0], [0, 1, 2, 3]),
    "told a little less": (detail_daemon(0.1), FALLING, [0, 1, 2, 3, 4, 5]),
    "told much less": (detail_daemon(0.8), FALLING, [0, 1, 2, 3, 4, 5]),
    "told more": (detail_daemon(-0.5), FALLING, [0, 1, 2, 3, 4, 5]),
    "told more, first repeated": (detail_daemon(-0.5), [14.6, 14.6, 7.0, 3.0, 0.0], [0, 1, 2, 3]),
}


def sample(model, sampler, sigmas):
    if not isinstance(sampler, comfy.samplers.KSAMPLER):
        sampler = comfy.samplers.KSAMPLER(euler) if sampler is euler else comfy.samplers.sampler_object(sampler)
    torch.manual_seed(0)
    noise = torch.randn(1, 4, 8, 8)
    texts = conditioning("sd15", 1), conditioning("sd15", 2)
    with torch.inference_mode():
        return comfy.sample.sample_custom(
            model, noise, 4.0, sampler, torch.tensor(sigmas), *texts, torch.zeros_like(noise), disable_pbar=True, seed=0
        )


@pytest.fixture(params=CASES, ids=lambda name: name.replace(" ", "_"))
def case(request):
    return CASES[request.param]


@pytest.fixture
def events(monkeypatch):
    sent = []
    monkeypatch.setattr(engine("comfy.events"), "send", lambda event, node, data: sent.append(data))
    return sent


def asked_sigmas(model):
    """A clone, and the list of what the model is asked at."""
    asked, model = [], model.clone()

    def note(executor, x, timestep, *args, **kwargs):
        asked.append(float(timestep[0]))
        return executor(x, timestep, *args, **kwargs)

    model.add_wrapper_with_key("predict_noise", "test", note)
    return model, asked


def test_each_evaluation_is_of_its_own_step_in_all_that_is_shown(model, case, events):
    sampler, sigmas, steps = case
    counted, asked = asked_sigmas(model)
    probed, live = probe(counted)
    image = sample(probed, sampler, sigmas)
    assert torch.equal(image, sample(model, sampler, sigmas))
    record = live.of(None)
    (run,) = record.runs
    assert run.sigma.tolist() == pytest.approx(asked)
    assert run.step.floor().int().tolist() == steps
    assert run.values.isfinite().all()
    rows = list(csv.DictReader(io.StringIO(engine("records.record").to_csv(record))))
    by_evaluation = {row["evaluation"]: int(float(row["step"])) - 1 for row in rows}
    assert list(by_evaluation.values()) == steps
    points = engine("records.chart").chart_data(run)["points"]
    assert [point["step"] - 1 for point in points] == sorted(set(steps))
    of_the_probe = [event for event in events if "sigma" in event]
    assert [event["step"] for event in of_the_probe] == [point["step"] for point in points]
    assert [event["sigma"] for event in of_the_probe] == [point["sigma"] for point in points]


@pytest.mark.parametrize("every", [2, 3])
def test_every_n_steps_measures_just_these(model, case, every):
    sampler, sigmas, steps = case
    probed, live = probe(model, every_n_steps=every)
    sample(probed, sampler, sigmas)
    (run,) = live.of(None).runs
    assert run.step.floor().int().tolist() == [step for step in steps if step % every == 0]


def test_the_log_names_the_steps_that_were_sampled(model, case, log):
    sampler, sigmas, steps = case
    sample(ours(model), sampler, sigmas)
    total = len(sigmas) - 1
    sampled = ", ".join(str(step + 1) for step in sorted(set(steps)))
    expected = f"all {total} steps" if len(set(steps)) == total else f"steps {sampled} of {total}"
    assert f"4 of 4 blocks hit, {expected}, positive and negative." in log.text


def test_a_schedule_without_a_step_says_that_there_was_none(model, log, statuses):
    probed, live = probe(ours(model))
    sample(probed, "euler", [14.6])
    assert "no step to do" in log.text and "no step to do" in statuses["1"]
    assert all(len(run.sigma) == 0 for run in live.of(None).runs)
