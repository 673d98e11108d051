"""The record of a trial: its schema (`schema`), its origin (`provenance`) and its files (`store`)."""
