"""Kill `mmpt index` at random moments, for the table in docs/explanation/search.md.

python -m benchmarks.search_kills --kills 100
"""

import argparse
import tempfile
from pathlib import Path

from tests.search.kills import kill_often


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        killed = kill_often(Path(folder), kills=arguments.kills, seed=arguments.seed)
    counts = [one.num_videos for one in killed]
    print(f"{len(killed)} kills, {counts.count(None)} before the collection was created, {counts.count(12)} after the ")
    print(f"last video. Videos in the collection after each kill, all complete: {counts}")
    print(f"Opening took {max(one.open_seconds for one in killed):.2f} s at most.")


if __name__ == "__main__":
    main()
