"""How much of a GPU's memory a trial takes, and what follows for its micro-batch.

predict/ computes it from the network's operations, without a GPU. measure/ runs the trial's own step in a process of
its own. choose/ turns a budget, an estimate and measured points into the pairs of micro-batch and accumulation that a
trial may take. guard.py holds a process to its share, and gives memory back between trials. Predicting and measuring
know nothing of each other; choosing uses both.
"""
