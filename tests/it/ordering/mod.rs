//! Ordering runs, indexes, patches and reviews with the program itself: what goes out, what is handed over, what is written
//! where, and how it ends. The providers here do as they are told; some of them lie.

mod files;
mod indexes;
mod interrupted;
mod patches;
mod repository;
mod reviews;
mod runs;
mod shop;
mod wrong_here;
