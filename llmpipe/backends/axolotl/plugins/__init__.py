"""What is copied beside every compiled configuration, for Axolotl to import while it trains.

Plugins seed the run (`axolotl_seed`), start no process for nothing (`axolotl_startup`), compute
logits of trained tokens only (`axolotl_logits`), look at the labels before the first step
(`axolotl_labels`) and write down how the training ended (`axolotl_state`); `axolotl_pairs` renders
rows with two answers. There they are top-level modules and need nothing of llmpipe: a folder that
``llmpipe compile`` wrote trains without it.
"""
