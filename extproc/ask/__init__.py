"""The verbs `kvoy explain` and `kvoy route`: ask running workers why, and what would happen.

    cli.py        the two commands
    workers.py    HTTP to the admin endpoints of the workers: what each said, or why it said nothing
    questions.py  the two questions, and which of the answers counts
    decision.py   the JSON of an answer as typed values
    report.py     a decision for people; pure
    table.py      columns that fit the terminal; pure

They talk to the workers' admin endpoints alone, and so run wherever those can be reached.
"""
