"""The library's face: a module per function. `import tune_cropshield` hands the functions on, without loading them."""
