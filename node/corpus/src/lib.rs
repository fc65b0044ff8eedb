//! Nothing is built here: the manifest beside this file lists the crates whose documentation is the default training text.
