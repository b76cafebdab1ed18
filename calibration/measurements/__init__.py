"""How accurate are the measurements of the trace? Pages with known signals are traced and measured
as on a laptop, and compared with what was printed on them and with the marks of cardiologists.

    recordings  12-lead signals with reference values, and signals of printed photographs
    pages       a page's picture, and the signal that it shows
    sets        the pages of each set: clean, distorted, scanned, photographed
    tracing     the traced signal against the printed one
    results     one page, measured and compared
    agreement   statistics over pages, with bootstrap intervals
    figures     everything in report.json
    plots, tables, report, run
"""
