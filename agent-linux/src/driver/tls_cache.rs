//! One TLS configuration for many nodes that trust the same.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// Configurations by what they trust, for the nodes of one thread.
#[derive(Debug, Clone, Default)]
pub struct TlsCache {
    known: Rc<RefCell<HashMap<String, Arc<rustls::ClientConfig>>>>,
}

impl TlsCache {
    /// The configuration for `key`, made when it is not there yet.
    ///
    /// # Errors
    /// What `make` could not do; nothing is remembered then.
    pub fn get<E>(
        &self,
        key: &str,
        make: impl FnOnce() -> Result<Arc<rustls::ClientConfig>, E>,
    ) -> Result<Arc<rustls::ClientConfig>, E> {
        if let Some(known) = self.known.borrow().get(key) {
            return Ok(Arc::clone(known));
        }
        let made = make()?;
        self.known.borrow_mut().insert(key.to_owned(), Arc::clone(&made));
        Ok(made)
    }
}
