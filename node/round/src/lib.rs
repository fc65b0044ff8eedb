//! What decides and never waits: the round's state machine, data assignment, selection, ratings.
