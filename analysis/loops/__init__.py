"""Loops: stretches of steps that make no progress. What they are (`kinds`), how they are found while a run goes on and
afterwards by the same code (`detector`, `watch`), what they cost (`price`), and what stopping them would have saved
(`counterfactual`)."""
