"""What llmpipe adds to a training: ``llmpipe run`` beside Axolotl on the folder that it compiles.

``python -m benchmarks.train`` trains the same model both ways, in turn, and compares the losses of
all steps. ``llmpipe run`` also plans, checks the labels, verifies the adapter, stores it and writes
the report. ``llmpipe compile`` writes the folder; its time is not counted.
"""
