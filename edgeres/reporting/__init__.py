"""Reporting: what the stages found out flows in, one document and one HTML page flow out.

`ladder.build` makes the document (`report.json`) from the artifacts' facts, `html.render` draws it.
"""
