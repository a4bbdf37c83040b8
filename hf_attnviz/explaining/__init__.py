"""Explanations of one prediction, and tests of whether to believe them: everything that runs the model again."""
