"""Entry point of `mgpu` and of `python -m keras_mgpu_strategy`."""

from absl import app

from keras_mgpu_strategy import cli


def run() -> None:
    """Reads the command line and runs it."""
    app.run(cli.main, flags_parser=cli.parse)


if __name__ == "__main__":
    run()
