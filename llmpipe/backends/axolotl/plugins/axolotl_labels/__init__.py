"""An Axolotl plugin that looks at the labels before the first training step, and stops the run.

Axolotl says only in a log that the token which ends an answer is not trained; a model trained so
never stops. It keeps rows of which nothing is trained. `plugin` is what Axolotl calls, `endings`
finds out what ends an answer, `rows` looks at the labels, `report` says what was found.

The folder is copied beside each configuration that llmpipe compiles (as ``axolotl_labels``) and
needs nothing of llmpipe.
"""

FILE = "training_labels.json"
"""What is written into the configuration's ``output_dir``: what was found (`report.Report`)."""
