"""Environs, URLs and answers: pure functions without Redis."""
