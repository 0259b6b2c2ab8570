//! What every comparison works with.

use crate::options::Options;
use crate::sample::Samples;
use crate::server::Server;

pub struct Context<'a> {
    pub server: &'a Server,
    pub samples: &'a Samples,
    pub options: &'a Options,
}
