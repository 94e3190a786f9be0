"""Mutation testing: `python -m tests.mutation`, from the repository's root.

Changes one thing at a time in the modules that `[tool.mutmut]` in pyproject.toml names,
and runs their tests on each change. Prints how many were noticed and which were not;
exits with an error if less than 85 % were noticed in any module. Needs `mutmut`.
"""

import collections
import pathlib
import shutil
import subprocess
import sys

LEAST_SHARE = 0.85
NOTICED = ("killed", "timeout")


def main():
    # Otherwise results of other tests and of an older module would be counted.
    shutil.rmtree(pathlib.Path("mutants"), ignore_errors=True)
    subprocess.run(["mutmut", "run"], check=True)
    report = subprocess.run(
        ["mutmut", "results", "--all", "true"],
        check=True,
        capture_output=True,
        text=True,
    )
    statuses = dict(read(line) for line in report.stdout.splitlines())
    sys.exit(show(statuses))


def read(line):
    """`    package.module.function__mutmut_1: killed` -> name, status."""
    name, _, status = line.strip().partition(": ")
    return name, status


def show(statuses):
    """Prints a line for each module and each survivor; returns the exit code."""
    modules = collections.defaultdict(list)
    for name, status in statuses.items():
        modules[name.rpartition(".")[0]].append(status in NOTICED)
    for name, status in statuses.items():
        if status not in NOTICED:
            print(f"{status}: mutmut show {name}")
    print(f"{'module':<36} mutants  noticed  share")
    for module, noticed in modules.items():
        share = sum(noticed) / len(noticed)
        print(f"{module:<36} {len(noticed):7} {sum(noticed):8} {share:6.1%}")
    return not modules or any(
        sum(noticed) < LEAST_SHARE * len(noticed) for noticed in modules.values()
    )


if __name__ == "__main__":
    main()
