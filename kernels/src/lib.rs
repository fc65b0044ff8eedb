//! CUDA C++ sources and the contract they must meet.
