//! mqadmin and mqbench.
