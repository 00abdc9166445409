# SPDX-License-Identifier: BSL-1.0
#
# What was measured, and what becomes of it: samples by name, one of each in a round; rows that compare two of them and
# hold the ratio against a goal; and how rows are printed.
import collections
import dataclasses
import json
import statistics


class Samples:
    """Numbers by name. Those of one round were measured one soon after the other, so ratios are taken round by round."""

    def __init__(self):
        self.of = collections.defaultdict(list)

    def add(self, name, value):
        self.of[name].append(value)

    def median(self, name):
        return statistics.median(self.of[name])


@dataclasses.dataclass
class Row:
    name: str
    value: str  # name of samples
    floor: str | None  # what it is divided by; None: it is a ratio by itself, or a count
    sense: str  # "<=" or ">="
    goal: float
    unit: str = "s"

    def judge(self, samples):
        """The row as an object of --json, or None where it was not measured."""
        if not samples.of[self.value] or (self.floor and not samples.of[self.floor]):
            return None
        values = samples.of[self.value]
        ratios = [v / f for v, f in zip(values, samples.of[self.floor])] if self.floor else values
        ratio = statistics.median(ratios)
        return {
            "name": self.name,
            "value": samples.median(self.value),
            "floor": samples.median(self.floor) if self.floor else None,
            "unit": self.unit,
            "ratio": ratio,
            "least": min(ratios),
            "most": max(ratios),
            "rounds": len(ratios),
            "goal": f"{self.sense} {self.goal:g}",
            "met": ratio <= self.goal if self.sense == "<=" else ratio >= self.goal,
        }


def text_of(number, unit=""):
    """Four digits at most, and units that fit."""
    if number is None:
        return ""
    if unit == "s" and number < 0.1:
        number, unit = (number * 1e3, "ms") if number >= 1e-4 else (number * 1e9, "ns")
    if unit == "bytes" and number >= 2**20:
        number, unit = number / 2**20, "MiB"
    digits = f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"
    return f"{digits} {unit}".strip()


def print_rows(title, judged):
    cells = [("", "value", "floor", "ratio", "least to most", "goal", "")]
    for row in judged:
        spread = f"{text_of(row['least'])} to {text_of(row['most'])}" if row["rounds"] > 1 else ""
        cells.append((row["name"], text_of(row["value"], row["unit"]), text_of(row["floor"], row["unit"]),
                      text_of(row["ratio"]), spread, row["goal"], "met" if row["met"] else "NOT MET"))
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    print(f"\n{title}\n")
    for line in cells:
        print("  " + "  ".join(cell.ljust(width) if i in (0, 6) else cell.rjust(width)
                               for i, (cell, width) in enumerate(zip(line, widths))).rstrip())
    print(flush=True)


def write_json(path, judged):
    path.write_text("".join(json.dumps(row) + "\n" for row in judged))
