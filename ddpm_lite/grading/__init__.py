"""Exercises and their grading: student code never runs in the grader's process.

`spec` says what an exercise is, `source` reads one from its file, `execute` runs answers and
`compare` judges them; `judge` grades one submission through a sandboxed worker (`sandbox`,
`template`, `wire`), `batch` a whole class, `reports` and `pages` write down what came of it.
`release` makes the notebooks. Specifications live in the course's `exercises/`, not in the package.
"""
