//! Protocol v2 messages as hosts read and write them: requests, replies, subjects, filters, DDL.
