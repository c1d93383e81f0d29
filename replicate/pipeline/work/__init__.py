"""What compute stages run: units of work, and which of them params.yaml asks for."""
