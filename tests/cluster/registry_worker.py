"""One of many processes on one registry; started by test_concurrency with the start as a file.

python registry_worker.py REGISTRY START {register CHECKPOINT | promote N ALIAS | contend N ALIAS}
Prints JSON. Imports nothing heavy: twenty of these start at once.
"""

import json
import sys
import time
from pathlib import Path

from cluster.moves import Conflict
from cluster.places import open_storage
from cluster.promotion import promote
from cluster.registry import Registry

place, start, verb, *arguments = sys.argv[1:]
registry = Registry(open_storage(place))
print("ready", flush=True)
while not Path(start).exists():
    time.sleep(0.001)

if verb == "register":
    mine = [
        registry.register("dcgan", Path(arguments[0]), {"turn": turn}, {"by": start})
        for turn in range(2)
    ]
    print(json.dumps([version.number for version in mine]))
elif verb == "promote":  # until it succeeds
    conflicts = 0
    while True:
        try:
            move = promote(registry, f"dcgan@{arguments[0]}", arguments[1])
            break
        except Conflict:
            conflicts += 1
    print(json.dumps({"previous": move.previous, "conflicts": conflicts}))
elif verb == "contend":  # once, expecting version 1
    try:
        promote(registry, f"dcgan@{arguments[0]}", arguments[1], expect=1)
        print(json.dumps({"won": True}))
    except Conflict as conflict:
        print(json.dumps({"won": False, "told": str(conflict)}))
