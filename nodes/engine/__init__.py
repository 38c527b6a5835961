"""The engine of the nodes. Each of its folders imports only those that are listed before it:

    text       what leaves the pack as text: cut, printable, ASCII where it must be
    choices    the words and ranges that a user can choose
    method     the paper in plain torch: settings, formula, measures; method/fast computes the same by chunks
    rules      what is wanted where: blocks, schedule, one node's rule, the plan of all rules
    families   what each model consists of: its attentions, and which tokens are the image
    records    what a probe measured: data, file, chart, figures, words
    comparison settings side by side: which are compared, what changed, how different the images are, the sheet
    run        one sampling run: what happens to each attention call, what is observed, what is said of it
    comfy      ComfyUI: patching a MODEL, one attention call, events, files, the prompt

The way of one number, alpha: nodes/circulation.py takes it from the slider into a CirculationSettings
(method/settings.py) in a Rule (rules/rule.py), which comfy/patch.py attaches to the model. When sampling
starts a Run (run/run.py) gets the Plan (rules/plan.py); each attention call of ComfyUI
(comfy/attention_call.py) that was announced goes through method/fast/circulate.py, where
method/formula.py puts alpha into the logits. A probe's Observer (run/observer.py) measures the result
(method/fast/measures.py) and writes a record (records/record.py), which records/plots.py and
records/chart.py draw. What is said of the run is worded in run/outcome.py.
"""

__version__ = "0.2.0"
