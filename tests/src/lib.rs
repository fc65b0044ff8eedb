//! What needs several crates: whole swarms, and the rules of the house.
