"""Classes are told by their names, so that a name which this version of ComfyUI lacks does no harm."""


def class_names(cls: type) -> list[str]:
    """The full names of a class and its bases, nearest first."""
    return [f"{each.__module__}.{each.__qualname__}" for each in cls.__mro__]
