//! The context of every comparison.

use crate::options::Options;
use crate::sample::Samples;
use crate::server::Server;

pub struct Context<'a> {
    pub server: &'a Server,
    pub samples: &'a Samples,
    pub options: &'a Options,
}
