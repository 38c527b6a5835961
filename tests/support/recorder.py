"""Attention calls as the backend sees them."""

from dataclasses import dataclass

KEY = "optimized_attention_override"


@dataclass(frozen=True)
class Seen:
    address: tuple
    shape: tuple  # of q
    keys: int
    conditions: tuple  # of the batch, 0 positive and 1 negative

    @property
    def doubled(self) -> bool:
        """Circulation's own call comes with heads split off; those of a UNet do not."""
        return len(self.shape) == 4


def record(model):
    """A clone of the MODEL and the list that its attention calls are written to."""
    model = model.clone()
    calls: list[Seen] = []
    options = model.model_options["transformer_options"]
    previous = options.get(KEY)

    def recorder(func, q, k, v, *args, **kwargs):
        to = kwargs["transformer_options"]
        calls.append(
            Seen((*to["block"], to["block_index"]), tuple(q.shape), k.shape[-2], tuple(to["cond_or_uncond"]))
        )
        return func(q, k, v, *args, **kwargs) if previous is None else previous(func, q, k, v, *args, **kwargs)

    options[KEY] = recorder
    return model, calls
