//! Login, request signing, authorization and audit for operators.
