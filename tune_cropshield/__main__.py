"""python -m tune_cropshield"""

from tune_cropshield.cli import run

if __name__ == "__main__":
    run()
