//! Whole stories: a relay in a stand-in for a cell, the proxy, and an endpoint.
