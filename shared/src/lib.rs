//! What coordinator and worker must agree on.
