"""The results as tables and as a plot."""

import matplotlib

from measure import number


def markdown(rows, speeds):
    lines = ["| part | what | median | least … most | target | |", "|---|---|---|---|---|---|"]
    for row in rows:
        target = "" if row["target"] is None else f"{'≥' if row['at_least'] else '≤'} {number(row['target'])}"
        mark = {None: "", True: "reached", False: "missed"}[row["reached"]]
        name = row["name"] + (f" ({row['note']})" if row["note"] else "")
        unit = "" if row["unit"] == "ratio" else f" {row['unit']}"
        spread = f"{number(row['least'])} … {number(row['most'])}"
        lines.append(f"| {row['part']} | {name} | {number(row['median'])}{unit} | {spread} | {target} | {mark} |")
    if speeds:
        lines += ["", "| part | what | GB/s | client, CPU s/GB | server, CPU s/GB |", "|---|---|---|---|---|"]
    for row in speeds:
        costs = [f"{row[key]:.3f}" if row[key] else "" for key in ("client_cpu_s_per_gb", "server_cpu_s_per_gb")]
        lines.append(f"| {row['part']} | {row['name']} | {row['gb_per_s']:.2f} | {costs[0]} | {costs[1]} |")
    return "\n".join(lines) + "\n"


def plot(rows, path):
    """Each row that has a target, as a share of it."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in rows if row["target"]][::-1]
    if not rows:
        return
    figure, axes = pyplot.subplots(figsize=(13, 1.5 + 0.55 * len(rows)))
    end, white = 2, {"facecolor": "white", "edgecolor": "none", "pad": 1}
    for place, row in enumerate(rows):
        value, least, most = (row[key] / row["target"] for key in ("median", "least", "most"))
        axes.barh(place, min(value, end), color="#4a8f5d" if row["reached"] else "#b5533c", height=0.6)
        axes.plot([min(least, end), min(most, end)], [place, place], color="black", linewidth=1.5)
        unit = "" if row["unit"] == "ratio" else f" {row['unit']}"
        sign = "≥" if row["at_least"] else "≤"
        text = f"{number(row['median'])}{unit} (target {sign} {number(row['target'])})"
        axes.text(min(max(value, most), end) + 0.02, place, text, va="center", fontsize=9, bbox=white)
    axes.axvline(1, color="black", linestyle="--", linewidth=1)
    axes.set_yticks(range(len(rows)))
    better = {True: "more is better", False: "less is better"}
    axes.set_yticklabels([f"{row['name']}\n{better[row['at_least']]}" for row in rows], fontsize=9)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlim(0, end + 0.8)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2])
    axes.set_xlabel(f"median ÷ target, cut at {end}; line: spread over the rounds; green: the target is reached")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
