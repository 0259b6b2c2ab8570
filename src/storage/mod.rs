//! Storage: tables and their columns, ids, chunk caches, and block hints.

pub mod block_hint;
pub mod events;
pub mod id;
pub mod read_chunk_cache;
pub mod table;
pub mod write_chunk_cache;
