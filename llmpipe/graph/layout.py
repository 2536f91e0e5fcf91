"""Place boxes in layers, so that every arrow points down.

Each box is one layer below the lowest box that it depends on (longest path). Barycenter passes
order each layer, so that few arrows cross. An arrow that passes a layer takes a lane in it. All
arrows from one box share a lane, and so do all arrows to a box that gathers many. A layer of many
boxes is folded into columns of several rows. Arrows reach the lower rows through the gutter on the
left and leave the upper rows through the gutter on the right. Finally, boxes and lanes of a layer
move as near to their neighbors as the order allows: least squares under an order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

BOX_GAP = 26.0
"""Pixels between two boxes of a layer."""
LAYER_GAP = 56.0
ROW_GAP = 18.0
"""Pixels between two boxes of a column."""
GUTTER = 16.0
"""Pixels on either side of a folded layer's boxes, for the arrows of its other rows."""
LANE = 8.0
LANE_GAP = 6.0
PER_ROW = 8
"""The number of boxes side by side above which a layer is folded."""
LANE_PULL = 8.0
"""How much more a lane is pulled to the next lane of its path than to a box."""
MAX_LANES = 4000
"""The number of lanes above which long arrows go straight, behind the boxes on their path."""
ORDERING_PASSES = 6
PULLING_PASSES = 9

Point = tuple[float, float]
Size = tuple[float, float]
_Lane = tuple[Literal["from", "to"], str, int]
"""The lane of one box's arrows through a layer."""
_Item = str | _Lane


@dataclass(frozen=True, slots=True)
class Layout:
    """The upper left corner of each box and the path of each arrow."""

    width: float
    height: float
    boxes: Mapping[str, Point]
    ways: Mapping[tuple[str, str], Sequence[Point]]


@dataclass(eq=False, slots=True)
class _Column:
    """Boxes on top of each other, or the lane of one box's arrows through a layer."""

    names: list[str]
    width: float
    layer: int
    x: float = 0.0
    above: list[_Column] = field(default_factory=list)
    below: list[_Column] = field(default_factory=list)

    @property
    def is_lane(self) -> bool:
        return not self.names


def place(sizes: Mapping[str, Size], arrows: Iterable[tuple[str, str]]) -> Layout:
    """Return the layout of boxes and arrows.

    Args:
        sizes: The width and height of each box in pixels, in an order in which arrows lead
            forward.
        arrows: Pairs of boxes, each pair once.
    """
    return _Layouter(sizes, list(arrows)).layout()


class _Layouter:
    def __init__(self, sizes: Mapping[str, Size], arrows: list[tuple[str, str]]) -> None:
        self.sizes = sizes
        self.arrows = arrows
        self.layer = _layers(sizes, arrows)
        self.depth = max(self.layer.values(), default=-1) + 1
        self.lanes: dict[_Lane, _Column] = {}
        self.column: dict[str, _Column] = {}
        self.fan_in = Counter(b for _, b in arrows)
        spans = sum(self.layer[b] - self.layer[a] - 1 for a, b in arrows)
        self.has_lanes = spans <= MAX_LANES

    def layout(self) -> Layout:
        layers = self._fold(self._ordered())
        self._join()
        _pull(layers)
        tops = self._tops(layers)
        left = min((c.x - c.width / 2 for cs in layers for c in cs), default=0.0)
        for column in (c for columns in layers for c in columns):
            column.x -= left
        width = max((c.x + c.width / 2 for cs in layers for c in cs), default=0.0)
        boxes = self._boxes(tops)
        ways = {(a, b): self._way(a, b, tops, boxes) for a, b in self.arrows}
        return Layout(width, tops[-1] - LAYER_GAP if layers else 0.0, boxes, ways)

    def _ordered(self) -> list[list[_Item]]:
        """Order each layer's boxes and lanes by the mean position of their neighbors."""
        layers: list[list[_Item]] = [[] for _ in range(self.depth)]
        for name in self.sizes:
            layers[self.layer[name]].append(name)
        up: dict[_Item, list[_Item]] = {}
        down: dict[_Item, list[_Item]] = {}
        for a, b in self._hops(layers):
            down.setdefault(a, []).append(b)
            up.setdefault(b, []).append(a)
        places: dict[_Item, float] = {}
        for layer in layers:
            _number(layer, places)
        for turn in range(ORDERING_PASSES):
            order, joined = (layers, up) if turn % 2 == 0 else (layers[::-1], down)
            for layer in order:
                layer.sort(key=_mean_place(joined, dict(places)))
                _number(layer, places)
        return layers

    def _lanes_of(self, a: str, b: str) -> list[_Lane]:
        """Return the lanes of an arrow, one in each layer that it passes."""
        if not self.has_lanes:
            return []
        between = range(self.layer[a] + 1, self.layer[b])
        if self.fan_in[b] > PER_ROW:
            return [("to", b, number) for number in between]
        return [("from", a, number) for number in between]

    def _hops(self, layers: list[list[_Item]]) -> Iterable[tuple[_Item, _Item]]:
        """Cut arrows into hops from one layer to the next; add the lanes that they pass."""
        hops: dict[tuple[_Item, _Item], None] = {}
        for a, b in self.arrows:
            lanes = self._lanes_of(a, b)
            for lane in lanes:
                if lane not in self.lanes:
                    self.lanes[lane] = _Column([], LANE, lane[2])
                    layers[lane[2]].append(lane)
            hops |= dict.fromkeys(pairwise([a, *lanes, b]))
        return hops

    def _fold(self, layers: list[list[_Item]]) -> list[list[_Column]]:
        """Return the columns of each layer; a layer of many boxes gets rows of equal length."""
        folded = []
        for number, layer in enumerate(layers):
            names = [item for item in layer if isinstance(item, str)]
            rows = -(-len(names) // PER_ROW)
            across = -(-len(names) // rows) if rows else 0
            if rows <= 1:
                columns = [
                    self._column([item], number) if isinstance(item, str) else self.lanes[item]
                    for item in layer
                ]
            else:
                columns = [self._column(names[i::across], number) for i in range(across)]
                for column in columns:
                    column.width += 2 * GUTTER
                columns += [self.lanes[item] for item in layer if not isinstance(item, str)]
            folded.append(columns)
        return folded

    def _column(self, names: list[str], layer: int) -> _Column:
        column = _Column(names, max(self.sizes[name][0] for name in names), layer)
        self.column |= dict.fromkeys(names, column)
        return column

    def _join(self) -> None:
        for a, b in self.arrows:
            for one, other in pairwise(self._stops(a, b)):
                if one.layer + 1 == other.layer:
                    one.below.append(other)
                    other.above.append(one)

    def _stops(self, a: str, b: str) -> list[_Column]:
        return [
            self.column[a],
            *(self.lanes[lane] for lane in self._lanes_of(a, b)),
            self.column[b],
        ]

    def _tops(self, layers: list[list[_Column]]) -> list[float]:
        """Return the top of each layer, and the top that one more layer would have."""
        tops = [0.0]
        for columns in layers:
            heights = [sum(self.sizes[n][1] + ROW_GAP for n in c.names) - ROW_GAP for c in columns]
            tops.append(tops[-1] + max(heights) + LAYER_GAP)
        return tops

    def _boxes(self, tops: list[float]) -> dict[str, Point]:
        boxes = {}
        for name in self.sizes:
            column = self.column[name]
            above = column.names[: column.names.index(name)]
            y = tops[column.layer] + sum(self.sizes[n][1] + ROW_GAP for n in above)
            boxes[name] = (column.x - self.sizes[name][0] / 2, y)
        return boxes

    def _way(self, a: str, b: str, tops: list[float], boxes: Mapping[str, Point]) -> list[Point]:
        """Return the points of an arrow's path; the path is vertical at each of them."""
        start, end = self.column[a], self.column[b]
        bottom = boxes[a][1] + self.sizes[a][1]
        way = [(start.x, bottom)]
        if a != start.names[-1]:
            gutter = start.x + start.width / 2 - GUTTER / 2
            way = [(start.x + self.sizes[a][0] / 4, bottom)]
            way += [(gutter, bottom + ROW_GAP), (gutter, tops[start.layer + 1] - LAYER_GAP)]
        for lane in self._stops(a, b)[1:-1]:
            way += [(lane.x, tops[lane.layer]), (lane.x, tops[lane.layer + 1] - LAYER_GAP)]
        if b == end.names[0]:
            return [*way, (end.x, boxes[b][1])]
        gutter = end.x - end.width / 2 + GUTTER / 2
        way += [(gutter, tops[end.layer]), (gutter, boxes[b][1] - ROW_GAP)]
        return [*way, (end.x - self.sizes[b][0] / 4, boxes[b][1])]


def _layers(sizes: Mapping[str, Size], arrows: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Assign each box a layer below its sources; boxes without sources go just above their use."""
    layer = dict.fromkeys(sizes, 0)
    above: dict[str, list[str]] = {name: [] for name in sizes}
    below: dict[str, list[str]] = {name: [] for name in sizes}
    for a, b in arrows:
        above[b].append(a)
        below[a].append(b)
    for name in sizes:
        layer[name] = max((layer[a] + 1 for a in above[name]), default=0)
    for name in sizes:
        if below[name] and not above[name]:
            layer[name] = min(layer[b] for b in below[name]) - 1
    return layer


def _number(layer: Sequence[_Item], places: dict[_Item, float]) -> None:
    places.update((item, i / len(layer)) for i, item in enumerate(layer))


def _mean_place(
    joined: Mapping[_Item, list[_Item]], places: Mapping[_Item, float]
) -> Callable[[_Item], float]:
    def key(item: _Item) -> float:
        others = joined.get(item)
        return sum(places[o] for o in others) / len(others) if others else places[item]

    return key


def _pull(layers: list[list[_Column]]) -> None:
    """Move columns toward their neighbors, alternately those above and those below."""
    for columns in layers:
        _settle(columns, [0.0] * len(columns))
    for turn in range(PULLING_PASSES):
        for columns in layers if turn % 2 == 0 else layers[::-1]:
            wanted = []
            for column in columns:
                near = column.above if turn % 2 == 0 else column.below
                wanted.append(_mean_x(column, near))
            _settle(columns, wanted)


def _mean_x(column: _Column, near: Sequence[_Column]) -> float:
    """Return the mean position of neighbors; lanes weight lanes more, to keep paths straight."""
    if not near:
        return column.x
    weights = [LANE_PULL if column.is_lane and other.is_lane else 1.0 for other in near]
    return sum(w * c.x for w, c in zip(weights, near, strict=True)) / sum(weights)


def _settle(columns: Sequence[_Column], wanted: Sequence[float]) -> None:
    """Move columns to the positions nearest to the wanted ones that keep order and distance.

    After the room of the preceding columns is subtracted, positions must not decrease. Neighbors
    that would decrease are pooled at their weighted mean, and pools are pooled in the same way.
    """
    rooms = [0.0]
    for one, other in pairwise(columns):
        gap = LANE_GAP if one.is_lane and other.is_lane else BOX_GAP
        rooms.append(rooms[-1] + (one.width + other.width) / 2 + gap)
    pools: list[tuple[float, float, int]] = []  # the sum of weights, the mean, how many
    for column, want, room in zip(columns, wanted, rooms, strict=False):
        pool = (LANE_PULL if column.is_lane else 1.0, want - room, 1)
        while pools and pools[-1][1] > pool[1]:
            weight, mean, count = pools.pop()
            total = weight + pool[0]
            pool = (total, (mean * weight + pool[1] * pool[0]) / total, count + pool[2])
        pools.append(pool)
    means = (mean for _, mean, count in pools for _ in range(count))
    for column, mean, room in zip(columns, means, rooms, strict=False):
        column.x = mean + room
