"""What is reported about a page, and the forms it is written in: text, JSON, HTML, PDF, FHIR."""
