# %% [markdown]
# # From a table of people to interests
#
# The classic case: a shop has one row for each person, with how often they browsed, bought and reviewed, and for
# many of them an interest: fashion, technology or food. We clean the table, standardise it, train the interest
# classifier, score it on a fifth of the people it has never seen, and ask it about somebody new.
#
# The table is made up, from a seed, so that everybody gets the same figures. It is as dirty as a real export.

# %%
from __future__ import annotations

import csv
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penchant.core import Run, rng
from penchant.data import Settings, open_source, read_users, recognise
from penchant.evaluation import classification_metrics
from penchant.models import TagsConfig, fit_tags, labels_from_users

INTERESTS = ("fashion", "food", "technology")
COUNTS = ("browse_count", "purchase_count", "review_count")
SEED = 7

# %% [markdown]
# ## 1. The shop's file
#
# Each interest has its own habits: fashion is browsed a lot, food is bought often, technology is reviewed. Habits
# overlap, so nobody can be right every time.

# %%
HABITS = {"fashion": (16, 3, 2), "food": (6, 9, 1), "technology": (9, 3, 7)}


def write_export(path: Path, people: int = 900) -> None:
    """Write a dirty CSV of people: missing counts, negative counts, repeated rows, odd labels, no id."""
    draw = rng(SEED, "classic export")
    rows = []
    for person in range(people):
        interest = INTERESTS[draw.integers(3)]
        liveliness = draw.gamma(4.0, 0.25)  # some people do more of everything
        counts = draw.poisson(np.array(HABITS[interest]) * liveliness)
        rows.append([f"u{person:04d}", *map(str, counts), interest])
    for row in draw.choice(people, 40, replace=False):
        rows[row][1 + draw.integers(3)] = ""
    for row in draw.choice(people, 12, replace=False):
        rows[row][1 + draw.integers(3)] = str(-1 - draw.integers(9))
    for row in draw.choice(people, 15, replace=False):
        rows[row][4] = str(draw.choice(["", "n/a", "gardening"]))
    for row in draw.choice(people, 10, replace=False):
        rows[row][4] = f" {rows[row][4].title()} "
    rows += [rows[row] for row in draw.choice(people, 20, replace=False)]
    rows += [["", "4", "2", "1", "food"] for _ in range(3)]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["user_id", *COUNTS, "interest_label"], *rows])


folder = tempfile.TemporaryDirectory()
export = Path(folder.name) / "people.csv"
write_export(export)
print(*export.read_text("utf-8").splitlines()[:4], sep="\n")

# %% [markdown]
# ## 2. Clean
#
# Penchant recognises the table by its columns and refuses rows that cannot be anybody's: those without an id, and
# all but the last row of a person. What a *count* may be, and which interests exist, is for us to say. A missing
# count is no reason to lose a person: the classifier handles it.

# %%
source = open_source(export)
people, refused, report = read_users(source, recognise(source, []), Settings())
print(f"{report.rows} rows read")
for entry in report.refusals:
    print(f"  {entry.count} refused: {entry.says}")

impossible = np.zeros(people.num_rows, np.bool_)
for name in COUNTS:
    impossible |= pc.fill_null(pc.less(people[name], 0), False).to_numpy()
print(f"  {impossible.sum()} removed: a negative count")
people = people.filter(pa.array(~impossible))

label = pc.utf8_lower(pc.utf8_trim_whitespace(people["interest_label"]))
known = pc.fill_null(pc.is_in(label, value_set=pa.array(INTERESTS)), False)
odd = label.filter(pc.invert(known)).fill_null("none").value_counts().to_pylist()
for entry in sorted(odd, key=lambda entry: entry["values"]):
    print(f"  {entry['counts']} removed: the interest is {entry['values']!r}")
people = people.set_column(people.schema.get_field_index("interest_label"), "interest_label", label).filter(
    known
)
missing = sum(people[name].null_count for name in COUNTS)
print(f"{people.num_rows} people remain; {missing} of their counts are missing, and stay so")
folder.cleanup()

# %% [markdown]
# ## 3. Hold out a fifth
#
# Before anything is computed from the table. What is held out must not even take part in an average.

# %%
_, interests = labels_from_users(people)
features = people.select(COUNTS)
order = rng(SEED, "classic split").permutation(people.num_rows)
test, train = np.sort(order[: people.num_rows // 5]), np.sort(order[people.num_rows // 5 :])
print(f"{len(train)} people to learn from, {len(test)} held out")

# %% [markdown]
# ## 4. Standardise and train
#
# The classifier brings its own standardisation, fitted on the training people alone and kept with the model, so
# that a new person is treated just as they were. Skewed counts are taken as logarithms; a missing value counts as
# average, and a column of its own says that it was missing.

# %%
learned = [interests[row] for row in train]
tags = fit_tags(features.take(pa.array(train)), learned, TagsConfig(hidden=(32,)), Run(seed=SEED))
for rule in tags.transform.rules:
    scale = "log(1 + count)" if rule.log else "count"
    print(f"{rule.name:15} {scale:15} mean {rule.mean:6.2f}  standard deviation {rule.std:5.2f}")
print(f"best after {tags.epochs} passes over the training people; interests: {', '.join(tags.names)}")

# %% [markdown]
# ## 5. Score on the held-out fifth
#
# Beside the base rate, which says the commonest interest of everybody.

# %%
probability = tags.predict(features.take(pa.array(test)))
truth = np.array([tags.names.index(interests[row]) for row in test])
scored = classification_metrics(probability, truth, classes=tags.names)
base = classification_metrics(np.tile(tags.base_rate_C, (len(test), 1)), truth, classes=tags.names)
print(f"{'':14}{'classifier':28}base rate")
for name in ("accuracy", "precision macro", "recall macro", "F1 macro", "ECE"):
    print(f"{name:16}{scored.metrics[name]!s:26}{base.metrics[name]}")

print("\nrecall by interest")
carriers = np.bincount(truth, minlength=3)
for name, count in zip(tags.names, carriers, strict=True):
    print(f"  {name:12} {scored.by_class[name]['recall']!s:26} of {count} people")

confusion = np.zeros((3, 3), int)
np.add.at(confusion, (truth, probability.argmax(axis=1)), 1)
print(f"\n{'is, said to be':16}" + "".join(f"{name:>12}" for name in tags.names))
for name, row in zip(tags.names, confusion, strict=True):
    print(f"{name:16}" + "".join(f"{count:12}" for count in row))

# %% [markdown]
# ## 6. Somebody new
#
# Ten pages browsed, five purchases, three reviews. The answer is a probability for each interest, with what
# speaks for it.

# %%
newcomer = {"browse_count": [10], "purchase_count": [5], "review_count": [3]}
answer = dict(zip(tags.names, tags.predict(newcomer)[0], strict=True))
print("browse 10, purchase 5, review 3:")
for name, chance in sorted(answer.items(), key=lambda pair: -pair[1]):
    because = "; ".join(evidence.text for evidence in tags.explain(newcomer, name, k=2))
    print(f"  {name:12} {chance:.3f}  {because}")
