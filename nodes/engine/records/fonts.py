"""Fonts for labels in any script.

DejaVu Sans, which comes with matplotlib, has no Chinese, Japanese or Korean; the machine of one who writes them has a font that does.
"""

from __future__ import annotations

import os
from functools import cache

FAMILIES = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR", "Source Han Sans SC"),
    *("Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "SimHei", "MS Gothic"),
    *("PingFang SC", "PingFang HK", "Hiragino Sans", "Hiragino Sans GB", "Apple SD Gothic Neo", "Arial Unicode MS"),
    *("WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "IPAGothic", "IPAexGothic", "VL Gothic", "NanumGothic", "UnDotum"),
)


def file_of(text: str) -> str:
    """The file of the font that has most of a text's letters, DejaVu Sans where others have no more. Raises whatever matplotlib does."""
    import matplotlib
    from matplotlib.font_manager import get_font

    letters = [ord(letter) for letter in {*text} if letter.isprintable()]

    def missing(file: str) -> int:
        return sum(not get_font(file).get_char_index(letter) for letter in letters)

    default = os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return min((default, *installed().values()), key=missing) if missing(default) else default


@cache
def installed() -> dict[str, str]:
    """The files of those families that this machine has."""
    from matplotlib.font_manager import findfont, fontManager

    names = {font.name for font in fontManager.ttflist}
    return {family: findfont(family) for family in FAMILIES if family in names}
