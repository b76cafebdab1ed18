"""The accuracy report of a folder of results (`calibration report`).

write      the command: figures, files, attaching to a kit
gates      a recipe's gates
verdicts   one paragraph a kit, and the limits of the figures
tables     all figures as tables of text
findings   the section about `calibration findings`
plots      drawings (matplotlib)
pages      pages on which answers turned
html       report.html (Jinja2); `markdown` in `tables` makes report.md
numbers    how figures are printed
"""
