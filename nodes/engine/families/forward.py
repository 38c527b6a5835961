"""One call of a transformer: which of its attentions comes next, and which tokens there are the image."""

from collections.abc import Mapping, Sequence

from torch import Tensor
from torch.nn import Module

from ..method.formula import ALL, WHOLE, Square
from ..rules.blocks import Address
from .transformer import TransformerFamily, in_groups, num_tokens


class Mark:
    """Put into the options of a block while it runs, so that its attentions say where they are.

    `passed_over` is how many of its attentions, from the first on, it leaves out this time.
    """

    def __init__(self, kind: str, index: int, passed_over: int = 0):
        self.block = (kind, index)
        self._calls = passed_over

    def next_turn(self) -> int:
        self._calls += 1
        return self._calls - 1


class Forward:
    """Created when the model is called, and asked by each attention in turn.

    Where a block is marked the mark counts, then what ComfyUI says, then how many attentions there
    were so far: which of them there are differs between families and versions of ComfyUI.
    """

    def __init__(
        self, family: TransformerFamily, network: Module, address_of_call: Mapping[tuple, Address],
        latent: Sequence[int], conditions: Mapping,
    ):  # fmt: skip
        """`latent` is the shape of what is denoised, `conditions` what else the model is given."""
        self.network = network
        shapes = conditions.get("latent_shapes") or [latent]
        if len(shapes) > 1:  # picture and sound are denoised as one
            latent = shapes[0]
        self.image_tokens = num_tokens(latent, family.patch(network))
        self.asked = 0  # queries of the attention that goes on which came in calls before this one
        self._family = family
        self._conditions = conditions
        self._address_of_call = address_of_call
        self._sequence = family.sequence(network, address_of_call, conditions) if family.counted else ()
        self._calls = 0
        self._named_calls = 0
        self._block: tuple | None = None
        self._turn = 0
        self._mark: Mark | None = None
        self._size = (0, 0)  # queries and keys of the call before
        self._address: Address | None = None

    def next_address(self, mark: Mark | None, block: tuple | None, queries: int, keys: int) -> Address | None:
        """Where the attention is that is called next; None if it is not over the image.

        `mark` is that of its block, and `block` its kind and index as ComfyUI says them; None where there is none.
        """
        self._calls += 1
        if self._family.is_own is not None and not self._family.is_own(self, queries, keys):
            return None
        if not self._goes_on(mark, queries, keys):
            self._address = self._find_address(mark, block)
        return self._address

    def _goes_on(self, mark: Mark | None, queries: int, keys: int) -> bool:
        """Whether this is a further part of the queries of the attention before it."""
        (before, same_keys), self._size = self._size, (queries, keys)
        same = mark is not None and mark is self._mark and keys == same_keys and self._family.queries is in_groups
        self._mark, self.asked = mark, self.asked + before if same else 0
        return 0 < self.asked <= keys - queries

    def _find_address(self, mark: Mark | None, block: tuple | None) -> Address | None:
        if mark is not None:
            self._block, self._turn = mark.block, mark.next_turn()
        elif block is not None:
            self._named_calls += 1
            # Side networks such as VACE's run after a block, without its mark and under its number.
            self._turn = self._turn + 1 if block == self._block else 0
            self._block = block
        elif self._calls <= len(self._sequence):
            return self._sequence[self._calls - 1]
        else:
            return None
        return self._address_of_call.get((*self._block, self._turn))

    def squares(self, queries: int, keys: int, image_start: int | None) -> tuple[Square | None, Square | None]:
        """Of an attention's queries and keys those that are the image's, None if there is no room for it, and all those that
        are both, None if that is not known: the image's again where sound is among the others. `image_start` is as for `image`.
        """
        place = 0 if queries == keys or self._family.queries is None else self._family.queries(self, queries, keys)
        own = slice(place, place + queries)
        if own.stop > keys or (queries != keys and self._family.queries is None):
            return None, None
        every = WHOLE if queries == keys else Square(ALL, own)
        image = self.image(keys, image_start) or slice(0, 0)
        first, stop, _ = image.indices(keys)
        first, stop = max(first, own.start), min(stop, own.stop)
        if first >= stop:
            return None, None if self._family.has_sound else every
        square = every if stop - first == queries else Square(slice(first - place, stop - place), slice(first, stop))
        return square, square if self._family.has_sound else every

    def image(self, tokens: int, image_start: int | None) -> slice | None:
        """Which of an attention's keys are the image's; None if there is no room for it.

        `image_start` is where ComfyUI says that the image starts; None where it does not.
        """
        if tokens == self.image_tokens:
            return ALL
        image = self._family.image(self, tokens, image_start)
        if not 0 <= image.start < image.stop <= tokens:
            return None
        return ALL if image == slice(0, tokens) else image

    def tokens_of(self, condition: str) -> int:
        """Tokens of the latent, or the list of them, that a condition brings; 0 where the model is not given it."""
        given = self._conditions.get(condition)
        latents = [given] if isinstance(given, Tensor) else given or ()
        return sum(num_tokens(latent.shape, self._family.patch(self.network)) for latent in latents)

    def length_of(self, condition: str) -> int:
        """Tokens of a condition (B, tokens, C); 0 where the model is not given it."""
        given = self._conditions.get(condition)
        return given.shape[1] if isinstance(given, Tensor) else 0

    @property
    def miscounted(self) -> bool:
        """Whether blocks were told apart by counting, and there were more or fewer attentions than there should be."""
        return bool(self._sequence) and not self._named_calls and self._calls not in (0, len(self._sequence))
