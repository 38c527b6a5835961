"""Classes are told by their names, so that a name which this version of ComfyUI lacks does no harm."""

from torch.nn import Module


def class_names(module: Module) -> list[str]:
    """The full names of a module's class and its bases, nearest first."""
    return [f"{cls.__module__}.{cls.__qualname__}" for cls in type(module).__mro__]
