"""The launcher in a test rig: a pytest plugin.

    plugin.py      what pytest calls: options, fixtures, what is shown of a failed test
    choices.py     which binaries and platforms a test runs on, and what they are called
    bench.py       the machines of one test
    rig.py         the machines of a run: started, shared, ended
    guard.py       a crash, a panic or a watchdog ends what a test waits for
    across.py      a machine for asynchronous tests, whatever loop they run in
    artifacts.py   what is kept of a failed test's machines
    transcript.py  logs with time stamps that do not outgrow the disk
    slots.py       how many machines run at a time, over all workers
    leaks.py       what a test left running
    labgrid.py     a driver for labgrid; nothing else here imports it

Machines live in the thread of `launcher.sync`, not in a test's loop: so they can be shared by
tests that each have a loop of their own, and their consoles are read while a test computes.
"""
