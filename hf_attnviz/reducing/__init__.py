"""What is kept of attention without ever building the matrix: tiles, the fused pass over them, and one file a reducer.

Pure tensor functions: nothing here knows a module. ``capturing`` shows them what a kernel was given (:class:`Ran`).
"""
