"""What looking costs on this machine: time, memory and correctness, ours and other tools', in one command.

``shapes`` and ``beds`` say on what, ``variants`` and ``peers`` what is compared; ``timing``, ``memory`` and ``truth``
measure, ``measuring`` makes tables of that; ``table`` holds them, ``told`` says them, and ``run`` is the front door.
"""
