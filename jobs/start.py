"""The `genimg` command, whose imports take a second."""

from jobs.interrupts import ctrl_c_ends


def main() -> None:
    with ctrl_c_ends():
        from jobs.cli import main as verbs
    verbs()
