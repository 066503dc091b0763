//! What a boot is watched by: the terminal, the summary, the picture.

pub mod picture;
pub mod summary;
pub mod terminal;
