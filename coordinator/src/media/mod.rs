//! Finished files: links to them, what people say of them, where they lie, when and how they go.

pub(crate) mod copies;
pub(crate) mod link;
pub(crate) mod live;
pub(crate) mod note;
pub(crate) mod place;
pub(crate) mod retention;
mod salvage;
mod second;
pub(crate) mod sweeper;
