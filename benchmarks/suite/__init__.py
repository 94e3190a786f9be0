"""What only this project measures: its models, other ways to predict, reports."""
